"""Orders inside a queue behind one interface: Towline's own, and the published ones."""
