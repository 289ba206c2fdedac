"""A delivery's way: claimed, limited, classified, recorded."""
