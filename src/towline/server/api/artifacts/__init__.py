"""What elements have kept under TOW_OUT: listed, and handed on from their nodes."""
