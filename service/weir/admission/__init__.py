"""Every limit of a key and its team, decided in one step. Raises refusals (429), `Unauthenticated` where the key is no
longer good, and `StoreUnavailable`. The adapters (`limiter_redis`, `limiter_local`, and `failover` around both) are
chosen by `app` alone.
"""

from weir.admission.admission import Admission, Reservation
from weir.admission.limiter import Grant, Limiter

__all__ = ["Admission", "Grant", "Limiter", "Reservation"]
