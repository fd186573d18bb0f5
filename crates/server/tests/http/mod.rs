//! Requests and answers, noun by noun.

mod access;
mod addresses;
mod admission;
mod beats;
mod credentials;
mod discovery;
mod events;
mod heartbeat;
mod lifecycle;
mod messages;
mod register;
mod rotation;
mod strangers;
mod workspaces;
