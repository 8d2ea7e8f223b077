"""What latents hold: from files of latents to figures, pictures and a page that tells them."""
