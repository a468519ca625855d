"""Rules of the moment: where a request goes, in which order it waits, when NIW is let through."""
