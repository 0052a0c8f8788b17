# The image of controllers (and of `kumulus` in general). What the steps do is in scripts/image.
ARG BASE=debian:12.12-slim

FROM ${BASE} AS build
COPY . /src
RUN /src/scripts/image build /src

FROM ${BASE}
COPY scripts/image /tmp/image
RUN /tmp/image runtime && rm /tmp/image
COPY --from=build /opt/kumulus /opt/kumulus
ENV PATH=/opt/kumulus/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /var/lib/kumulus
EXPOSE 7071
ENTRYPOINT ["kumulus"]
CMD ["run"]
