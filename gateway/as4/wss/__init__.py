"""WS-Security as AS4 uses it: detached signatures over header and parts, AES-GCM for parts [as4 3].

`security` reads and frames the header, `tokens` names certificates, `sign` and `verify` make and
judge signatures, `encrypt` and `decrypt` protect parts and content keys. `algorithms` holds the
primitives as rows of tables; what may be used is decided by `profiles`.
"""
