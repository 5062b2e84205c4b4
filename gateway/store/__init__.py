"""Everything the gateway keeps: messages, sealed payloads, jobs, events, clients, the audit.

`api` is the contract. `postgres` meets it for real, `memory` for unit tests; one suite,
`tests/contract/test_store_contract.py`, runs against both. `embedded` runs a private
PostgreSQL where no DSN is given. `states` says which changes of state there are, `chain`
how the audit is chained.
"""
