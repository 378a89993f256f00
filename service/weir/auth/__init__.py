"""Who calls: keys, their digests, and whose they are. Raises `Unauthenticated` (401) and `StoreUnavailable` (503)."""

from weir.auth.authenticator import Authenticator
from weir.auth.key_store import KeyStore

__all__ = ["Authenticator", "KeyStore"]
