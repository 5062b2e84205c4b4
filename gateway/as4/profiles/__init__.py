"""The profiles by name. One line here, and one file beside it, makes a new one."""

from gateway.as4.profiles import edelivery1, edelivery2, oots
from gateway.as4.profiles.profile import Profile

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        edelivery1.FOUR_CORNER,
        edelivery1.TWO_CORNER,
        edelivery2.FOUR_CORNER,
        edelivery2.TWO_CORNER,
        edelivery2.ECDSA_FOUR_CORNER,
        edelivery2.ECDSA_TWO_CORNER,
        oots.OOTS_1,
        oots.OOTS_2,
    )
}
