"""Which system calls containers may make: the profile (a data file), and the filter made of it."""

from towline.runtime.seccomp.profile import Profile, load_profile, native_machine, oci_section
from towline.runtime.seccomp.program import compile_filter

__all__ = ["Profile", "compile_filter", "load_profile", "native_machine", "oci_section"]
