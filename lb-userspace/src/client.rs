//! A client of the control socket.
