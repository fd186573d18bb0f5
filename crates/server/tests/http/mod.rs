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
mod receipts;
mod register;
mod rotation;
mod secrets;
mod sessions;
mod strangers;
mod sweeps;
mod tokens;
mod workspaces;
