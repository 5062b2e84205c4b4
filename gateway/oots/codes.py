"""Namespaces, fixed values and code lists of OOTS messages. Names for literals, nothing else.

The lists are the ones the header rules and the samples need. They are facts of the published
code lists, newest edition known here; a code that is not listed is a finding, never a refusal.
"""

# -- namespaces of the exchange data model [tdd 4.4] ---------------------------

QUERY = "urn:oasis:names:tc:ebxml-regrep:xsd:query:4.0"
RIM = "urn:oasis:names:tc:ebxml-regrep:xsd:rim:4.0"
RS = "urn:oasis:names:tc:ebxml-regrep:xsd:rs:4.0"
LCM = "urn:oasis:names:tc:ebxml-regrep:xsd:lcm:4.0"
SDG = "http://data.europa.eu/p4s"
XLINK = "http://www.w3.org/1999/xlink"
XSI = "http://www.w3.org/2001/XMLSchema-instance"

# -- the ebMS header [tdd 4.7] --------------------------------------------------

ROLE = "http://sdg.europa.eu/edelivery/gateway"
SERVICE_TYPE = "urn:oasis:names:tc:ebcore:ebrs:ebms:binding:1.0"
QUERY_MANAGER = "QueryManager"
LIFECYCLE_MANAGER = "LifecycleManager"
REQUEST = "ExecuteQueryRequest"
RESPONSE = "ExecuteQueryResponse"
EXCEPTION = "ExceptionResponse"
SUBMIT_REQUEST = "SubmitObjectsRequest"
SUBMIT_RESPONSE = "SubmitObjectsResponse"
EXCHANGE_ID = "ExchangeId"
SPECIFICATION_ID = "SpecificationId"
EAS_SCHEME = "urn:cef.eu:names:identifier:EAS:"
UNREGISTERED = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:"
REGREP_MEDIA_TYPE = "application/x-ebrs+xml"

# -- fixed values of the documents ----------------------------------------------

EDM_2_0 = "oots-edm:v2.0"
EDM_1_2 = "oots-edm:v1.2"
STATUS = "urn:oasis:names:tc:ebxml-regrep:ResponseStatusType:"
COLLECTION_SET = "urn:oasis:names:tc:ebxml-regrep:CollectionType:Set"
CLASSIFICATION_SCHEME = "urn:fdc:oots:classification:edm"
ASSOCIATION = "urn:oasis:names:tc:ebxml-regrep:AssociationType:"
SEMANTIC_REPOSITORY = "https://sr.oots.tech.ec.europa.eu/"
SEVERITY_ERROR = "urn:oasis:names:tc:ebxml-regrep:ErrorSeverityType:Error"
SEVERITY_PREVIEW = "urn:sr.oots.tech.ec.europa.eu:codes:ErrorSeverity:EDMErrorResponse:PreviewRequired"

#: Code, exception type and message of an error response [tdd 4.5.3]. Prefixes are compared literally.
EDM_ERRORS: dict[str, tuple[str, str]] = {
    "EDM:ERR:0001": ("rs:AuthenticationExceptionType", "Failed Authentication"),
    "EDM:ERR:0002": ("rs:AuthorizationExceptionType", "Missing Authorization"),
    "EDM:ERR:0003": ("rs:InvalidRequestExceptionType", "Syntactically or semantically invalid request"),
    "EDM:ERR:0004": ("rs:ObjectNotFoundExceptionType", "Object not found"),
    "EDM:ERR:0005": ("rs:TimeoutExceptionType", "Exceeding timeout period"),
    "EDM:ERR:0006": ("rs:UnresolvedReferenceExceptionType", "Referenced object that cannot be resolved"),
    "EDM:ERR:0007": ("rs:UnsupportedCapabilityExceptionType", "Optional feature or capability is not supported"),
    "EDM:ERR:0008": ("query:QueryExceptionType", "Problem during the processing of a QueryRequest"),
}

# -- code lists -------------------------------------------------------------------

#: OOTSMediaTypes: what evidence may be.
EVIDENCE_MEDIA_TYPES = frozenset({
    "application/pdf", "application/xml", "application/json", "image/jpeg", "image/png", "image/svg+xml",
})  # fmt: skip

#: Electronic Address Scheme codes.
EAS = frozenset(
    """0002 0007 0009 0037 0060 0088 0096 0097 0106 0130 0135 0142 0147 0151 0154 0158 0170 0177 0183 0184 0188 0190
    0191 0192 0193 0194 0195 0196 0198 0199 0200 0201 0202 0203 0204 0205 0208 0209 0210 0211 0212 0213 0215 0216 0217
    0218 0221 0225 0230 0235 0240 9901 9906 9907 9910 9913 9914 9915 9918 9919 9920 9922 9923 9924 9925 9926 9927 9928
    9929 9930 9931 9932 9933 9934 9935 9936 9937 9938 9939 9940 9941 9942 9943 9944 9945 9946 9947 9948 9949 9950 9951
    9952 9953 9957 9959""".split()  # noqa: SIM905 - a table
)

#: CountryIdentificationCode: ISO 3166-1 alpha-2.
COUNTRIES = frozenset(
    """AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA
    CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB
    GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG
    KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV
    MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB
    SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US
    UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW""".split()  # noqa: SIM905 - a table
)
