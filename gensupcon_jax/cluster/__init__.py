"""Devices and processes: the mesh, several processes as one run, stopping, the watchdog."""
