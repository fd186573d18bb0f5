//! Every guard, and the property that misses it.
