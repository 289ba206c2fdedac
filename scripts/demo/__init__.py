"""`make demo`: the main job on embedded servers and real processes, from an emitted event to a checked receipt."""
