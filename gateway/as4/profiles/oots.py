"""The Once-Only Technical System: eDelivery AS4 1.15 with four corners.

Version 1.2 of the OOTS and version 2.0 ask for the same suite today; they are two names so
that an agreement says which rules it was made under, and one can move without the other.
"""

from msgspec.structs import replace

from gateway.as4.profiles import edelivery1

OOTS_1 = replace(edelivery1.FOUR_CORNER, name="oots/1.2", rules="oots")
OOTS_2 = replace(edelivery1.FOUR_CORNER, name="oots/2.0", rules="oots")
