#!/opt/topicd/bin/python
"""The program `sd-server` of stable-diffusion.cpp, as far as a container of it is used."""

import argparse
import io

from aiohttp import web
from PIL import Image

from fakes.a1111_server import A1111Server


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--listen-ip", required=True)
    options.add_argument("--listen-port", type=int, required=True)
    options.add_argument("--model", required=True)
    args = options.parse_args()
    server = A1111Server()
    data = io.BytesIO()
    Image.linear_gradient("L").resize((256, 256)).save(data, "PNG")
    server.image = data.getvalue()
    web.run_app(server.app, host=args.listen_ip, port=args.listen_port)


if __name__ == "__main__":
    main()
