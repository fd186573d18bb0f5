//! One test binary: a new file is named here.

mod seeds;
