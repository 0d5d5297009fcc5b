"""What a cloud's services say of servers (`ports.cloud`), for the controller."""
