"""READ-ME.txt of a package that announces certificates: for the engineer of a partner who has never seen one.

What changes, from when, how long the old certificate is good, what to do, how to check that it is from us, and
whom to ask. Two languages with one content; dates are in UTC.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.operate.announcement import Change, Described, Facts

_USES = {
    "en": {"sign": "signing messages and receipts", "decrypt": "encryption of messages to us",
           "tls-server": "our TLS server", "tls-client": "our TLS client"},
    "lv": {"sign": "ziņojumu un kvīšu parakstīšana", "decrypt": "mums sūtīto ziņojumu šifrēšana",
           "tls-server": "mūsu TLS serveris", "tls-client": "mūsu TLS klients"},
}  # fmt: skip
#: What a partner has to do for each use of a certificate.
_DUTIES = {
    "en": {
        "sign": "Trust it for our signatures NOW, beside the old one. Keep both until we tell you.",
        "decrypt": "Encrypt to it from the day below on; we can read both. After it the old one is not needed.",
        "tls-server": "If you pin our TLS certificate: trust both. If you trust its CA there is nothing to do.",
        "tls-client": "If your server lets us in by certificate: let both in. Keep both until we tell you.",
    },
    "lv": {
        "sign": "Uzticieties tam mūsu parakstiem JAU TAGAD, līdzās vecajam. Paturiet abus, līdz mēs paziņosim.",
        "decrypt": "Šifrējiet ar to, sākot ar tālāk norādīto dienu; mēs atšifrējam abus. Pēc tam vecais nav vajadzīgs.",
        "tls-server": "Ja piesaistāt mūsu TLS sertifikātu: uzticieties abiem. Ja uzticaties tā CA, nekas nav jādara.",
        "tls-client": "Ja jūsu serveris mūs ielaiž pēc sertifikāta: ielaidiet abus. Paturiet abus, līdz mēs paziņosim.",
    },
}


def english(facts: "Facts") -> str:
    """The English half."""
    begins = _day(facts.begins) if facts.begins else "when every partner is ready; your access point will be tested"
    return f"""\
{facts.party} changes its certificates
{"=" * (len(facts.party) + 25)}

This package was made {_moment(facts.made_at)}.

What changes
------------
{_changes(facts, "en", _english_change)}
In use from: {begins}
Questions:   {facts.contact}

Before we use a new signing certificate we send you a message of the ebMS test service that is
signed with it. If your access point refuses it, our traffic to you stays on the old one.

Is this package from us?
------------------------
Do not trust the certificate inside: check the package with the one of ours that you have
already. Save it as current.pem; its SHA-256 fingerprint is

    {_grouped(facts.signed_with.sha256)}

{_commands(facts, "It must print", "and OK for every file")}
If in doubt compare the fingerprints over the telephone.
"""


def latvian(facts: "Facts") -> str:
    """The Latvian half."""
    begins = _day(facts.begins) if facts.begins else "kad visi partneri būs gatavi; jūsu piekļuves punktu pārbaudīsim"
    return f"""\
{facts.party} maina sertifikātus
{"=" * (len(facts.party) + 20)}

Šī pakotne sagatavota {_moment(facts.made_at)}.

Kas mainās
----------
{_changes(facts, "lv", _latvian_change)}
Lietosim no: {begins}
Jautājumi:   {facts.contact}

Pirms lietosim jaunu parakstīšanas sertifikātu, nosūtīsim jums ar to parakstītu ebMS testa
pakalpojuma ziņojumu. Ja jūsu piekļuves punkts to noraidīs, ziņojumus jums parakstīsim ar veco.

Vai šī pakotne ir no mums?
--------------------------
Neuzticieties pakotnē esošajam sertifikātam: pārbaudiet pakotni ar to mūsu sertifikātu, kas jums
jau ir. Saglabājiet to kā current.pem; tā SHA-256 nospiedums ir

    {_grouped(facts.signed_with.sha256)}

{_commands(facts, "Jābūt izdrukātam", "un OK katram failam")}
Ja rodas šaubas, salīdziniet nospiedumus pa tālruni.
"""


def commands(facts: "Facts") -> list[str]:
    """The commands that check the package, in the folder where it is, with our present certificate as current.pem."""
    fingerprint = "openssl x509 -in current.pem -noout -fingerprint -sha256"
    if facts.signature.endswith(".p7s"):
        check = (
            "openssl cms -verify -binary -inform PEM -in SHA256SUMS.p7s -content SHA256SUMS "
            "-nointern -certfile current.pem -noverify -out /dev/null"
        )
        return [fingerprint, check, "sha256sum -c SHA256SUMS"]
    # A bare signature: OpenSSL 3 reads it, older releases know Ed25519 in no command.
    return [
        fingerprint,
        "openssl x509 -in current.pem -noout -pubkey -out current.pub",
        "openssl pkeyutl -verify -pubin -inkey current.pub -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig",
        "sha256sum -c SHA256SUMS",
    ]


def _commands(facts: "Facts", prints: str, files: str) -> str:
    said = (
        "CMS Verification successful" if facts.signature.endswith(".p7s") else "Signature Verified Successfully"
    )
    lines = "\n".join(f"    {command}" for command in commands(facts))
    return f'{lines}\n\n{prints} "{said}" {files}.\n'


def _changes(facts: "Facts", language: str, one: Callable[["Change", str, list[str]], str]) -> str:
    uses, duties = _USES[language], _DUTIES[language]
    return "\n".join(
        one(change, ", ".join(uses[use] for use in change.uses), [duties[use] for use in change.uses])
        for change in facts.changes
    )


def _english_change(change: "Change", uses: str, duties: list[str]) -> str:
    old = [*_certificate("Old certificate", "serial", "valid", change.replaces),
           f"  we use it until you and we have changed, and not after {_day(change.replaces.valid_until)}",
           ] if change.replaces else []  # fmt: skip
    return "\n".join([
        f"* {uses}", *_certificate(f"New certificate, file {change.file}", "serial", "valid", change.next), *old,
        "  What you do:", *(f"  - {duty}" for duty in duties), "",
    ])  # fmt: skip


def _latvian_change(change: "Change", uses: str, duties: list[str]) -> str:
    old = [*_certificate("Vecais sertifikāts", "sērijas nr.", "derīgs", change.replaces),
           f"  lietojam, līdz esat nomainījuši jūs un mēs, un ne pēc {_day(change.replaces.valid_until)}",
           ] if change.replaces else []  # fmt: skip
    return "\n".join([
        f"* {uses}", *_certificate(f"Jaunais sertifikāts, fails {change.file}", "sērijas nr.", "derīgs", change.next),
        *old, "  Kas jādara jums:", *(f"  - {duty}" for duty in duties), "",
    ])  # fmt: skip


def _certificate(title: str, serial: str, valid: str, found: "Described") -> list[str]:
    return [
        f"  {title}", f"    {found.subject}", f"    CA {found.issuer}", f"    {serial} {found.serial}",
        f"    {valid} {_day(found.valid_from)} … {_day(found.valid_until)}",
        f"    SHA-256 {_grouped(found.sha256)}",
    ]  # fmt: skip


def _grouped(fingerprint: str) -> str:
    """As openssl prints it, so that it can be compared by eye."""
    return ":".join(fingerprint[n : n + 2] for n in range(0, len(fingerprint), 2)).upper()


def _day(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d}"


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
