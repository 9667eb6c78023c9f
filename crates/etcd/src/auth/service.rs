//! Users, roles and permissions: changed, shown, and shown to be who one says.

use super::Credentials;
use crate::{
    core::{Core, patience},
    error,
    proto::{
        authpb::{self, permission::Type},
        etcdserverpb::{
            AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse,
            AuthRoleAddRequest, AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse,
            AuthRoleGetRequest, AuthRoleGetResponse, AuthRoleGrantPermissionRequest,
            AuthRoleGrantPermissionResponse, AuthRoleListRequest, AuthRoleListResponse,
            AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse, AuthStatusRequest,
            AuthStatusResponse, AuthUserAddRequest, AuthUserAddResponse,
            AuthUserChangePasswordRequest, AuthUserChangePasswordResponse, AuthUserDeleteRequest,
            AuthUserDeleteResponse, AuthUserGetRequest, AuthUserGetResponse,
            AuthUserGrantRoleRequest, AuthUserGrantRoleResponse, AuthUserListRequest,
            AuthUserListResponse, AuthUserRevokeRoleRequest, AuthUserRevokeRoleResponse,
            AuthenticateRequest, AuthenticateResponse, ResponseHeader, auth_server::Auth,
        },
    },
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use store::{
    AuthOp, Identity, KeyRange, Op, Permission, PermissionKind, ROOT, TokenKey,
    state::{View, root_permission},
};
use tonic::{Request, Response, Status};

pub(crate) struct AuthService(pub(crate) Arc<Core>);

type Answer<T> = Result<Response<T>, Status>;

impl AuthService {
    async fn change(
        &self,
        who: Credentials,
        op: AuthOp,
        patience: Duration,
    ) -> Result<Option<ResponseHeader>, Status> {
        let (revision, _) = self.0.carry_out(&who, Op::Auth(op), patience).await?;
        Ok(self.0.header(revision))
    }

    /// The newest state and who asks.
    async fn read<T>(&self, request: &Request<T>) -> Result<(View, Identity), Status> {
        self.0.read(&Credentials::of(request), false, patience(request)).await
    }

    /// The newest state, for root alone.
    async fn read_as_root<T>(&self, request: &Request<T>) -> Result<View, Status> {
        let (view, who) = self.read(request).await?;
        view.auth().check_root(&who).map_err(error::of_auth)?;
        Ok(view)
    }
}

#[tonic::async_trait]
impl Auth for AuthService {
    async fn auth_enable(&self, request: Request<AuthEnableRequest>) -> Answer<AuthEnableResponse> {
        let op = AuthOp::Enable { token_key: TokenKey(rand::random()) };
        let header = self.change(Credentials::of(&request), op, patience(&request)).await?;
        Ok(Response::new(AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<AuthDisableRequest>,
    ) -> Answer<AuthDisableResponse> {
        let who = Credentials::of(&request);
        let header = self.change(who, AuthOp::Disable, patience(&request)).await?;
        Ok(Response::new(AuthDisableResponse { header }))
    }

    async fn auth_status(&self, request: Request<AuthStatusRequest>) -> Answer<AuthStatusResponse> {
        let view = self.read_as_root(&request).await?;
        Ok(Response::new(AuthStatusResponse {
            header: self.0.header(view.revision()),
            enabled: view.auth().is_enabled(),
            auth_revision: view.auth().revision(),
        }))
    }

    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Answer<AuthenticateResponse> {
        let patience = patience(&request);
        let AuthenticateRequest { name, password } = request.into_inner();
        let view = self.0.view(false, patience).await?;
        if !view.auth().is_enabled() {
            return Err(error::auth_not_enabled());
        }
        let user = view.auth().user(&name).ok_or_else(error::auth_failed)?;
        let hash = user.password.clone().ok_or_else(error::unknown::no_password_user)?;
        if !self.0.auth.passwords.verify(password, hash).await? {
            tracing::info!(user = name, "wrong password");
            return Err(error::auth_failed());
        }
        // For the user of the same state: if its password has changed meanwhile the token is void.
        let token = self.0.auth.issue(&name, &view)?;
        let header = self.0.header(view.revision());
        Ok(Response::new(AuthenticateResponse { header, token }))
    }

    async fn user_add(&self, request: Request<AuthUserAddRequest>) -> Answer<AuthUserAddResponse> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let AuthUserAddRequest { name, password, options, .. } = request.into_inner();
        let password = match options {
            Some(authpb::UserAddOptions { no_password: true }) => None,
            Some(_) | None => {
                // Not for strangers: hashing takes a core for a while.
                self.0.check_root(&who, patience).await?;
                Some(self.0.auth.passwords.hash(password).await?)
            }
        };
        let op = AuthOp::UserAdd { user: name, password };
        let header = self.change(who, op, patience).await?;
        Ok(Response::new(AuthUserAddResponse { header }))
    }

    async fn user_get(&self, request: Request<AuthUserGetRequest>) -> Answer<AuthUserGetResponse> {
        let (view, who) = self.read(&request).await?;
        let name = request.into_inner().name;
        if who.user != name || name.is_empty() {
            view.auth().check_root(&who).map_err(error::of_auth)?;
        }
        let user = view.auth().user(&name).ok_or_else(error::user_not_found)?;
        Ok(Response::new(AuthUserGetResponse {
            header: self.0.header(view.revision()),
            roles: user.roles.iter().cloned().collect(),
        }))
    }

    async fn user_list(
        &self,
        request: Request<AuthUserListRequest>,
    ) -> Answer<AuthUserListResponse> {
        let view = self.read_as_root(&request).await?;
        Ok(Response::new(AuthUserListResponse {
            header: self.0.header(view.revision()),
            users: view.auth().users().map(|(name, _)| name.to_owned()).collect(),
        }))
    }

    async fn user_delete(
        &self,
        request: Request<AuthUserDeleteRequest>,
    ) -> Answer<AuthUserDeleteResponse> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let op = AuthOp::UserDelete { user: request.into_inner().name };
        let header = self.change(who, op, patience).await?;
        Ok(Response::new(AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<AuthUserChangePasswordRequest>,
    ) -> Answer<AuthUserChangePasswordResponse> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let AuthUserChangePasswordRequest { name, password, .. } = request.into_inner();
        self.0.check_root(&who, patience).await?;
        let password = self.0.auth.passwords.hash(password).await?;
        let op = AuthOp::UserChangePassword { user: name, password };
        let header = self.change(who, op, patience).await?;
        Ok(Response::new(AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<AuthUserGrantRoleRequest>,
    ) -> Answer<AuthUserGrantRoleResponse> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let AuthUserGrantRoleRequest { user, role } = request.into_inner();
        let header = self.change(who, AuthOp::UserGrantRole { user, role }, patience).await?;
        Ok(Response::new(AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<AuthUserRevokeRoleRequest>,
    ) -> Answer<AuthUserRevokeRoleResponse> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let AuthUserRevokeRoleRequest { name: user, role } = request.into_inner();
        let header = self.change(who, AuthOp::UserRevokeRole { user, role }, patience).await?;
        Ok(Response::new(AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(&self, request: Request<AuthRoleAddRequest>) -> Answer<AuthRoleAddResponse> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let op = AuthOp::RoleAdd { role: request.into_inner().name };
        let header = self.change(who, op, patience).await?;
        Ok(Response::new(AuthRoleAddResponse { header }))
    }

    async fn role_get(&self, request: Request<AuthRoleGetRequest>) -> Answer<AuthRoleGetResponse> {
        let (view, who) = self.read(&request).await?;
        let name = request.into_inner().role;
        // Whoever has the role may see what it is.
        let own = view.auth().user(&who.user).is_some_and(|user| user.roles.contains(&name));
        if !own {
            view.auth().check_root(&who).map_err(error::of_auth)?;
        }
        let role = view.auth().role(&name).ok_or_else(error::role_not_found)?;
        let perm = match name.as_str() {
            ROOT => vec![permission_of(root_permission())],
            _ => role.permissions.iter().cloned().map(permission_of).collect(),
        };
        let header = self.0.header(view.revision());
        Ok(Response::new(AuthRoleGetResponse { header, perm }))
    }

    async fn role_list(
        &self,
        request: Request<AuthRoleListRequest>,
    ) -> Answer<AuthRoleListResponse> {
        let view = self.read_as_root(&request).await?;
        Ok(Response::new(AuthRoleListResponse {
            header: self.0.header(view.revision()),
            roles: view.auth().roles().map(|(name, _)| name.to_owned()).collect(),
        }))
    }

    async fn role_delete(
        &self,
        request: Request<AuthRoleDeleteRequest>,
    ) -> Answer<AuthRoleDeleteResponse> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let op = AuthOp::RoleDelete { role: request.into_inner().role };
        let header = self.change(who, op, patience).await?;
        Ok(Response::new(AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<AuthRoleGrantPermissionRequest>,
    ) -> Answer<AuthRoleGrantPermissionResponse> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let AuthRoleGrantPermissionRequest { name: role, perm } = request.into_inner();
        let given = perm.ok_or_else(error::permission_not_given)?;
        let kind = match given.perm_type() {
            Type::Read => PermissionKind::Read,
            Type::Write => PermissionKind::Write,
            Type::Readwrite => PermissionKind::ReadWrite,
        };
        let permission =
            Permission { kind, range: KeyRange::from_wire(given.key, given.range_end) };
        let op = AuthOp::RoleGrantPermission { role, permission };
        let header = self.change(who, op, patience).await?;
        Ok(Response::new(AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<AuthRoleRevokePermissionRequest>,
    ) -> Answer<AuthRoleRevokePermissionResponse> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let AuthRoleRevokePermissionRequest { role, key, range_end } = request.into_inner();
        let range = KeyRange::from_wire(key, range_end);
        let op = AuthOp::RoleRevokePermission { role, range };
        let header = self.change(who, op, patience).await?;
        Ok(Response::new(AuthRoleRevokePermissionResponse { header }))
    }
}

pub(crate) fn permission_of(permission: Permission) -> authpb::Permission {
    let kind = match permission.kind {
        PermissionKind::Read => Type::Read,
        PermissionKind::Write => Type::Write,
        PermissionKind::ReadWrite => Type::Readwrite,
    };
    let (key, range_end) = match permission.range {
        KeyRange::One(key) => (key, Bytes::new()),
        KeyRange::Between { start, end } => (start, end),
        KeyRange::From(start) => (start, Bytes::from_static(&[0])),
    };
    authpb::Permission { perm_type: kind.into(), key, range_end }
}
