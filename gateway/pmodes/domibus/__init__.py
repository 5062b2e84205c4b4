"""Domibus and Harmony P-Mode files: read, translated into agreements, written.

`grammar` is what such a file may say, as data; `read` makes nodes of one and finds what is
wrong with it; `translate` makes an agreement file of the nodes for one party; `truststore` finds
the certificates; `export` writes a P-Mode file from agreements. What was mended, left aside or
is worth a look stands in a `report.Report`.
"""
