"""The plugin that counts blocks and simulates caches inside QEMU."""
