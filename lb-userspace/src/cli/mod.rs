//! `lvxadm`: the command line of ipvsadm.
