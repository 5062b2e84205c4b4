"""For all tests."""

import functools

from gateway.keys import pkcs8

#: OpenSSL proves primes for 40 ms whenever an RSA key is read, and most tests read the same two. Keys never change,
#: and an error is not remembered.
pkcs8.load_der_private_key = functools.cache(pkcs8.load_der_private_key)
