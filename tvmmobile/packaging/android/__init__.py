"""What an Android archive of a network contains besides the library: Java classes, and C between them and the library."""
