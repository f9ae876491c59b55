"""Payloads at rest: sealed values, tenants' keys, and the key that wraps those.

`sealer` seals and opens with one tenant's data keys; `kms` wraps data keys; `keyring` knows whose
keys are whose, for a bounded time; `store` keeps the wrapped ones.
"""
