"""The FastAPI side: what is not hot. Documentation, models and limits on the data port; health on the ops port."""
