//! Requests and answers, noun by noun.

mod access;
mod credentials;
mod edge;
mod events;
mod gates;
mod heartbeat;
mod lifecycle;
mod messages;
mod register;
mod sessions;
mod tokens;
mod workspaces;
