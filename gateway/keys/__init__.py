"""Certificates and private keys as immutable snapshots.

`formats` reads key stores, `keyring` holds our own keys, `trust` judges certificates,
`sealing` protects what lies in the database, `tls` makes contexts, `development` makes
certificates for demonstrations and tests.
"""
