"""A PKCS#11 token in software for tests: SoftHSM (Debian: softhsm2). Where it is missing the tests are skipped, loudly."""

import os
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import pytest

PIN = "5678"
LABEL = "gateway-test"
_MODULES = [
    Path(folder) / "softhsm" / "libsofthsm2.so"
    for folder in ("/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/local/lib")
]


def module() -> Path:
    """The PKCS#11 library of SoftHSM, or the test is skipped."""
    found = next((path for path in _MODULES if path.exists()), None)
    missing = [] if found and shutil.which("softhsm2-util") else ["SoftHSM (Debian: apt install softhsm2)"]
    try:
        import pkcs11  # noqa: F401
    except ImportError:
        missing.append("python-pkcs11 (pip install .[pkcs11])")
    if missing:
        text = f"NOTHING WAS TESTED OF PKCS#11: {' and '.join(missing)} is missing"
        warnings.warn(text, stacklevel=2)
        pytest.skip(text)
    return found


class SoftHsm:
    """One token. SoftHSM reads its configuration once a process, so all tests of a run share a folder."""

    _root: Path | None = None

    def __init__(self) -> None:
        self.module = module()
        if SoftHsm._root is None:
            SoftHsm._root = Path(tempfile.mkdtemp(prefix="softhsm-"))
            (SoftHsm._root / "tokens").mkdir()
            (SoftHsm._root / "conf").write_text(
                f"directories.tokendir = {SoftHsm._root / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
            )
            os.environ["SOFTHSM2_CONF"] = str(SoftHsm._root / "conf")
            self._run("--init-token", "--free", "--label", LABEL, "--so-pin", "1234", "--pin", PIN)
        self.root = SoftHsm._root

    def add(self, private, label: str) -> str:
        """Put a key into the token; its URI."""
        from tests.world import key_pem

        file = self.root / f"{label}.pem"
        file.write_bytes(key_pem(private))
        id = os.urandom(4).hex()
        try:
            self._run("--import", str(file), "--token", LABEL, "--label", label, "--id", id, "--pin", PIN)
        finally:
            file.unlink()
        return f"pkcs11:token={LABEL};object={label}"

    def add_agreeing(self, private, label: str) -> str:
        """The same for an EC key that agrees on keys, which the tool above does not allow them."""
        import pkcs11
        from pkcs11 import Attribute, KeyType, ObjectClass
        from pkcs11.util.ec import encode_named_curve_parameters

        size = (private.curve.key_size + 7) // 8
        with pkcs11.lib(str(self.module)).get_token(token_label=LABEL).open(rw=True) as session:
            session.create_object({
                Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.KEY_TYPE: KeyType.EC, Attribute.TOKEN: True,
                Attribute.PRIVATE: True, Attribute.SENSITIVE: True, Attribute.DERIVE: True, Attribute.LABEL: label,
                Attribute.EC_PARAMS: encode_named_curve_parameters(private.curve.name),
                Attribute.VALUE: private.private_numbers().private_value.to_bytes(size),
            })  # fmt: skip
        return f"pkcs11:token={LABEL};object={label}"

    @staticmethod
    def _run(*arguments: str) -> None:
        done = subprocess.run(["softhsm2-util", *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr + done.stdout
