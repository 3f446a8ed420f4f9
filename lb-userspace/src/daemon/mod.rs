//! `lvxd`: configuration, attachment, the control socket, life and death.
