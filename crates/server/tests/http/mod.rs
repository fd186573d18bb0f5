//! Requests and answers, noun by noun.

mod access;
mod credentials;
mod events;
mod heartbeat;
mod lifecycle;
mod liveness;
mod messages;
mod register;
mod sweeps;
mod workspaces;
