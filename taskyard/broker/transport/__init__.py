"""kombu's Redis transport on our data model."""
