"""The AS4 protocol, sans-IO: bytes and values in, bytes and values out.

Nothing in this folder waits, reads a clock, opens a file or keeps state between calls.
Time and randomness come as arguments, keys as values with `.sign` and `.decrypt`,
agreements as one immutable `PModeSet`.

Clause keys used in comments: [as4 n] the eDelivery AS4 1.15/2.0 reference, by section
of the project's protocol notes; [ebms3 n] ebMS 3.0 core; [swa n] WS-Security SwA profile
1.1; [bsp Rnnnn] WS-I Basic Security Profile 1.1; [xenc11 n] XML Encryption 1.1; [threats
Xnn] the attack catalogue, whose tests live in `tests/security`.
"""
