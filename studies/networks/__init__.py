"""Many networks beside each other: built-in ones and other people's."""
