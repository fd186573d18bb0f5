//! Properties of the decisions, driven from outside. One test binary: a new file is named here.
mod admission;
mod converge;
mod orphan;
mod tidy;
