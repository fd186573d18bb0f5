//! Requests and answers, noun by noun.

mod access;
mod addresses;
mod admission;
mod beats;
mod credentials;
mod discovery;
mod edge;
mod events;
mod gates;
mod heartbeat;
mod lifecycle;
mod liveness;
mod messages;
mod outside;
mod register;
mod repose;
mod rotation;
mod sessions;
mod strangers;
mod sweeps;
mod tokens;
mod workspaces;
