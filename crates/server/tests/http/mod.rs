//! Requests and answers, noun by noun.

mod access;
mod addresses;
mod admission;
mod beats;
mod credentials;
mod discovery;
mod edge;
mod events;
mod files;
mod gates;
mod health;
mod heartbeat;
mod lifecycle;
mod liveness;
mod messages;
mod misbehaviour;
mod orphans;
mod register;
mod rest;
mod rotation;
mod sessions;
mod strangers;
mod sweeps;
mod terminal;
mod tokens;
mod workspaces;
