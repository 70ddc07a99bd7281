"""Contents of a network's Android archive besides the library: Java classes, and C between them and the library."""
