"""Namespaces and identifier constants of the wire. One name each, nothing else [as4 0.2-0.4]."""

# -- namespaces ---------------------------------------------------------------

S12 = "http://www.w3.org/2003/05/soap-envelope"
#: SOAP 1.1: not ours, but some answers that did not get as far as AS4 are in it.
S11 = "http://schemas.xmlsoap.org/soap/envelope/"
EB = "http://docs.oasis-open.org/ebxml-msg/ebms/v3.0/ns/core/200704/"
EBBP = "http://docs.oasis-open.org/ebxml-bp/ebbp-signals-2.0"
MF = "http://docs.oasis-open.org/ebxml-msg/ns/v3.0/mf/2010/04/"
WSS = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-"
WSS11 = "http://docs.oasis-open.org/wss/oasis-wss-"
WSSE = WSS + "wssecurity-secext-1.0.xsd"
WSSE11 = WSS11 + "wssecurity-secext-1.1.xsd"
WSU = WSS + "wssecurity-utility-1.0.xsd"
DS = "http://www.w3.org/2000/09/xmldsig#"
DSIG11 = "http://www.w3.org/2009/xmldsig11#"
DSIGMORE = "http://www.w3.org/2021/04/xmldsig-more#"
XENC = "http://www.w3.org/2001/04/xmlenc#"
XENC11 = "http://www.w3.org/2009/xmlenc11#"
EC = "http://www.w3.org/2001/10/xml-exc-c14n#"
XML = "http://www.w3.org/XML/1998/namespace"
AU = "http://docs.oasis-open.org/ebcore/ns/AgreementUpdate/v1.0"
CU = "http://docs.oasis-open.org/ebcore/ns/CertificateUpdate/v1.0"


def qn(namespace: str, name: str) -> str:
    """The name as lxml writes it: `{namespace}name`."""
    return f"{{{namespace}}}{name}"


# -- ebMS and AS4 identifiers -------------------------------------------------

MEP_ONE_WAY = EB + "oneWay"
MEP_TWO_WAY = EB + "twoWay"
BINDING_PUSH = EB + "push"
BINDING_PUSH_AND_PUSH = EB + "pushAndPush"
BINDING_PULL = EB + "pull"
BINDING_PUSH_AND_PULL = EB + "pushAndPull"
BINDING_PULL_AND_PUSH = EB + "pullAndPush"
DEFAULT_MPC = EB + "defaultMPC"
ROLE_DEFAULT = EB + "defaultRole"
ROLE_INITIATOR = EB + "initiator"
ROLE_RESPONDER = EB + "responder"
TEST_SERVICE = EB + "service"
TEST_ACTION = EB + "test"
#: ebCore Agreement Update [as4 4.11]. The three actions about certificates are those of the gas community; the
#: other three are formed like them (unverified).
UPDATE_SERVICE = CU
UPDATE_ACTION = "UpdateCertificate"
UPDATE_CONFIRMED = "ConfirmCertificateUpdate"
UPDATE_REJECTED = "RejectCertificateUpdate"
TERMINATE_ACTION = "TerminateAgreement"
TERMINATE_CONFIRMED = "ConfirmAgreementTermination"
TERMINATE_REJECTED = "RejectAgreementTermination"
ORIGINAL_SENDER = "originalSender"
FINAL_RECIPIENT = "finalRecipient"
TRACKING_IDENTIFIER = "trackingIdentifier"
MIME_TYPE = "MimeType"
CHARACTER_SET = "CharacterSet"
COMPRESSION_TYPE = "CompressionType"
GZIP = "application/gzip"
SOAP_MEDIA_TYPE = "application/soap+xml"
OCTET_STREAM = "application/octet-stream"

# -- WS-Security tokens -------------------------------------------------------

BASE64_BINARY = WSS + "soap-message-security-1.0#Base64Binary"
X509V3 = WSS + "x509-token-profile-1.0#X509v3"
X509_PKIPATH = WSS + "x509-token-profile-1.0#X509PKIPathv1"
X509_SKI = WSS + "x509-token-profile-1.0#X509SubjectKeyIdentifier"
THUMBPRINT_SHA1 = WSS11 + "soap-message-security-1.1#ThumbprintSHA1"
TOKEN_ENCRYPTED_KEY = WSS11 + "soap-message-security-1.1#EncryptedKey"
SWA = WSS11 + "SwAProfile-1.1#"
SWA_SIGNATURE = SWA + "Attachment-Content-Signature-Transform"
SWA_CIPHERTEXT = SWA + "Attachment-Ciphertext-Transform"
SWA_CONTENT_ONLY = SWA + "Attachment-Content-Only"

# -- algorithms (what may be used is decided in wss/algorithms.py and profiles/) ----

EXC_C14N = EC
SHA256 = XENC + "sha256"
SHA384 = "http://www.w3.org/2001/04/xmldsig-more#sha384"
SHA512 = XENC + "sha512"
RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
ECDSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"
ED25519 = DSIGMORE + "eddsa-ed25519"
AES128_GCM = XENC11 + "aes128-gcm"
AES256_GCM = XENC11 + "aes256-gcm"
RSA_OAEP = XENC11 + "rsa-oaep"
RSA_OAEP_MGF1P = XENC + "rsa-oaep-mgf1p"
MGF1_SHA1 = XENC11 + "mgf1sha1"
MGF1_SHA256 = XENC11 + "mgf1sha256"
X25519 = DSIGMORE + "x25519"
ECDH_ES = XENC11 + "ECDH-ES"
HKDF = DSIGMORE + "hkdf"
HMAC_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256"
CONCAT_KDF = XENC11 + "ConcatKDF"
KW_AES128 = XENC + "kw-aes128"
