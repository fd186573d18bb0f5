//! Requests and answers, noun by noun.

mod access;
mod admission;
mod credentials;
mod events;
mod heartbeat;
mod lifecycle;
mod messages;
mod register;
mod rotation;
mod strangers;
mod workspaces;
