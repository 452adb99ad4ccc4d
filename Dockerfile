# One image for every command. Without a command it is the embedded default: everything in /data.
#   docker run --init -p 8443:8443 -v holdfast:/data holdfast
# With services of your own: docker run --init ... holdfast api   (and: worker, migrate, check-objects).
FROM node:24-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
# The node that npm brings along for machines without one would only be the second in here.
RUN npm ci --omit=dev --no-audit --no-fund \
 && rm -rf node_modules/node-linux-* node_modules/.bin/node

FROM node:24-slim
# MALLOC_ARENA_MAX: glibc keeps what each of many arenas has freed, with buffers of megabytes that is much.
ENV NODE_ENV=production HOLDFAST_DATA=/data MALLOC_ARENA_MAX=2
WORKDIR /app
COPY --from=dependencies /app/node_modules ./node_modules
COPY package.json ./
COPY migrations ./migrations
COPY protocol ./protocol
COPY storage ./storage
COPY server ./server
COPY admin ./admin
RUN mkdir /data && chown node:node /data && chmod 700 /data
USER node
VOLUME /data
EXPOSE 8443
# A worker has a port only with HOLDFAST_WORKER_PORT: run it with --no-healthcheck.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["node", "server/main.ts", "health"]
# In order: requests under way, jobs, connections, PostgreSQL. Give it more than HOLDFAST_SHUTDOWN_TIMEOUT:
# docker stop --time 90
STOPSIGNAL SIGTERM
# Room for new things, and the heap collected before it grows by much: half the memory that Node takes by itself.
ENTRYPOINT ["node", "--max-semi-space-size=8", "--heap-growing-percent=30", "server/main.ts"]
CMD ["all", "--embedded"]
