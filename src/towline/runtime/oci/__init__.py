"""The ``oci`` runtime: containers through crun or runc, called directly."""
