"""A model's reasoning as the `encrypted_content` that a stateless client keeps and sends back.

Codex CLI shows reasoning but returns only its `encrypted_content`; models that think between their calls need the
rest. It is not encrypted: the client has been given the same text, and whoever sends it could send any other.
"""

import base64
import binascii

_MARK = "weir1."  # ours; whatever else comes was sealed elsewhere and cannot be read


def sealed(reasoning: str) -> str:
    return _MARK + base64.b64encode(reasoning.encode()).decode()


def unsealed(content: object) -> str:
    """Empty where it is not ours."""
    if not isinstance(content, str) or not content.startswith(_MARK):
        return ""
    try:
        return base64.b64decode(content[len(_MARK) :], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
