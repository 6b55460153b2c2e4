"""Ground floor: heads, lead fields and what can be computed from them, without torch."""
