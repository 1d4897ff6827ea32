"""The lab: hosts, containers, links, datapaths, and what can be read off them."""
