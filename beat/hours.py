"""Times of day in UTC that other settings name too; without imports, so that reading one loads no scheduler."""

CLEAN_UP_AUDIT = "0 3 * * *"
