//! Requests and answers, noun by noun.

mod access;
mod beats;
mod credentials;
mod events;
mod heartbeat;
mod lifecycle;
mod messages;
mod register;
mod workspaces;
