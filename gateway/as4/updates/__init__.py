"""ebCore Agreement Update: the documents two gateways exchange to change an agreement [as4 4.11].

OASIS Committee Specification 01 of 2016-09-18. `documents` are the values, `reading` makes them of octets,
`writing` octets of them. Who may ask for what, and what becomes of it, is not decided here.

Checked against the published schema documentation and samples of CS01: order and names of the elements of
requests, answers and exceptions, and how ds:KeyInfo may be used. Unverified: the error codes except
AU:0006, the elements of a termination answer beyond those of an update answer, and the actions of a
termination (`ns.TERMINATE_*`). A reader therefore decides nothing by a code, and says what it was told.
"""
